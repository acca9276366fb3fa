"""The sandbox port: what sandboxes may ask of the gateway. Announcements now; models, tools, memory and traces join here."""
