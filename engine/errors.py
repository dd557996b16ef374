"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A sentence that names the file, key or device at fault and says what to do; commands print it and exit with 2."""
