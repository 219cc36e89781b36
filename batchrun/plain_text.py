"""Text from outside, made harmless for a terminal."""


def on_one_line(text: str) -> str:
    """The text with line breaks and control characters (which could steer a terminal) as blanks."""
    return "".join(character if character.isprintable() else " " for character in text)
