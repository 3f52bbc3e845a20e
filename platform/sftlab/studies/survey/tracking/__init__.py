"""What MLflow records about surveys."""
