"""What runs where a model is served: HTTP requests become columns, and the model's columns become answers."""
