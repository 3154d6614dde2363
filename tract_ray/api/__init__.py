"""What `import tract_ray` offers and the command line calls: one run at a time, and the model that it makes."""
