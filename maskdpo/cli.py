"""The entry point of the command line. All else is imported inside ``main``, where Ctrl-C already ends quietly."""


def main() -> None:
    """Run the command that ``sys.argv`` names."""
    try:
        from maskdpo.application import run
    except KeyboardInterrupt:  # the imports take a moment
        raise SystemExit(130) from None
    run()
