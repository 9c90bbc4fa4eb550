"""The session behind a request, as a FastAPI dependency.

Install it with `pip install "chatkit-sessions[fastapi]"`.
"""

from .starlette import chatkit_session

__all__ = ["chatkit_session"]
