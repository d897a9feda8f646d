"""`python -m opengrok_jax` is `opengrok`."""

from opengrok_jax.cli import main

main()
