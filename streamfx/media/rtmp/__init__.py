"""RTMP as a library: a server that publishers push to and a player that pulls, on asyncio and nothing else."""
