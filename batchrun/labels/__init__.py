"""From the text of an answer to a valid label, or to the exact reason why there is none. No I/O."""
