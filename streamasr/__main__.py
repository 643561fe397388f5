"""The program streamasr, also as python -m streamasr: quiet when it is interrupted before it has begun."""

import sys


def main() -> int:
    """As streamasr.cli.main, which takes a while to import on a small board."""
    try:
        from streamasr import cli
    except KeyboardInterrupt:
        return 130
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
