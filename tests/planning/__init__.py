"""What a plan counts, draws and estimates."""
