"""gRPC: decode, call the Runner, encode. Everything that all calls share is an interceptor or the table of statuses."""
