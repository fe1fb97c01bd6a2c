"""What is run on pybeethoven's source from time to time; it is not part of the package."""
