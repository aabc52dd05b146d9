"""Reading and writing: run folders, images, videos. Every write is atomic."""
