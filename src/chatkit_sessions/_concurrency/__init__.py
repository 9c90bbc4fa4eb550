"""What threads, processes and event loops need: per process, asyncio or trio, single flight."""
