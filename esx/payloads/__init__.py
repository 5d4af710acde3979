"""What is shown of payloads that are bytes: decoded where that is possible, else as text or hexadecimal."""
