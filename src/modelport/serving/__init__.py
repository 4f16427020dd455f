"""What runs in the container: HTTP in, predictions out."""
