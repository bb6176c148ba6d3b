"""What the tests share: servers, factories, forced orders, proxies, and the verdict in SQL."""
