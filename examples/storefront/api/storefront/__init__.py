"""Storefront API: listings in PostgreSQL, a cache in Redis, photos on a volume."""
