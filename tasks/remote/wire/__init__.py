"""The bytes on the wire: messages (``link``), large ones in parts (``parts``), and the service's methods."""
