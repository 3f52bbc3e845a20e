"""Running of steps: costs, builds, previews, repair and progress."""
