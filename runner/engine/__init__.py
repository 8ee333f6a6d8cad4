"""The engine: async over ports. It knows no gRPC, no SQL and no HTTP, and runs on asyncio and trio alike."""
