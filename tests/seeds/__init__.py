"""What the documents of older systems tell their users to do, done from end to end over a shipped catalogue."""
