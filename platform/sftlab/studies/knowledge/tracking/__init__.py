"""What MLflow records about studies of knowledge."""
