"""The game's controls: virtual gamepad, keyboard, and letting go of them at exit."""
