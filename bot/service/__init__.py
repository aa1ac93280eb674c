"""What watches the loop and tells people about it. Nothing in here can trade."""
