"""`python -m spirit`, also for launchers: `deepspeed --module spirit train RECIPE.toml`."""

from spirit.cli import main

if __name__ == "__main__":
    main(prog_name="spirit")
