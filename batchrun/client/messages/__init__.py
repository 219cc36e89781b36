"""The Messages API: the one package that knows the form of its requests and responses."""
