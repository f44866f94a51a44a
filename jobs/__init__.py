"""What the API and the workers both speak: job records, the status machine, the journal, the queue, files and keys."""
