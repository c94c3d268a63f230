"""Takes jobs, keeps them, and places them on GPUs that will let them finish."""
