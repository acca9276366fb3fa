from fakes.valkey import ledger, redis_client, valkey, valkey_server

__all__ = ["ledger", "redis_client", "valkey", "valkey_server"]
