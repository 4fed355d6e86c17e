"""What goes over the wire: messages as bytes, large ones in parts, and the channel they take."""
