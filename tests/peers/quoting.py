"""Path segments: event ids of room version 3 may have a slash in them."""

import urllib.parse


def quote(text):
    return urllib.parse.quote(text, safe="")
