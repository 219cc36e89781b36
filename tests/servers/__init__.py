"""Other servers than the provider: real ones, on loopback. `make test-servers` installs and runs them."""
