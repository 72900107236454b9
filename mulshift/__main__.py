"""`python -m mulshift`."""

from mulshift.cli import main

if __name__ == "__main__":
    main()
