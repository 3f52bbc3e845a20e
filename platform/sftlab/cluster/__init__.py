"""Ray sessions: joining or starting a cluster, its token, and placement on its nodes."""
