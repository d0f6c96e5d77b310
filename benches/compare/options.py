# SPDX-License-Identifier: Apache-2.0
"""What options are made of."""

import argparse


def numbers(text):
    return [int(part) for part in text.split(",")]


def words(allowed):
    def parse(text):
        found = text.split(",")
        unknown = set(found) - set(allowed)
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(allowed)}")
        return found

    return parse


def within(kind, low, high):
    """A number in these bounds."""

    def parse(text):
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text}: from {low:g} to {high:g}")
        return value

    parse.__name__ = kind.__name__  # argparse names it where `kind` takes no such text
    return parse


def several(one):
    """Of such numbers, with commas between them, each once, in order."""

    def parse(text):
        return sorted({one(part) for part in text.split(",")})

    parse.__name__ = one.__name__
    return parse
