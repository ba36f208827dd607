"""Where bytes lie: folders, servers, copies of both, and tars."""
