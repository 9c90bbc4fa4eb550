"""The session behind a request, as a dependency of FastAPI.

It needs FastAPI: `pip install "chatkit-sessions[fastapi]"`.
"""

from .starlette import chatkit_session

__all__ = ["chatkit_session"]
