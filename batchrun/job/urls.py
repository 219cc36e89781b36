"""URLs as they may be shown."""


def without_secrets(path: str) -> str:
    """A URL without its user, password and query (a signature, often); a path as it stands."""
    scheme, mark, rest = path.partition("://")
    if not mark:
        return path
    host, slash, file = rest.partition("?")[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{file}"
