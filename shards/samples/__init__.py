"""The sample data set `earth`, made from maps in a package."""
