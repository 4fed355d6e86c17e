"""Worker processes: started and kept alive, on this machine or on a Ray cluster."""
