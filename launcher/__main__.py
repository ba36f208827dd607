"""`python -m launcher COMMAND`, also as the entry of accelerate, torchrun and deepspeed."""

from launcher.cli import main

if __name__ == "__main__":
    main()
