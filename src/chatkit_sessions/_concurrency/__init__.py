"""What threads, processes and event loops need: clocks, limits, single flight, asyncio or trio."""
