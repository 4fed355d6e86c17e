"""The game's controls: virtual gamepad and keyboard, and their release when the program ends."""
