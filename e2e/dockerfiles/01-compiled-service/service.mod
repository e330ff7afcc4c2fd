example.com/log v1.2.0
example.com/web v0.9.1
