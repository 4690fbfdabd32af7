"""A local image becomes something the server can fetch: today, a `data:` URI within the request."""
