"""What people have: folders in the usual layouts, and lists."""
