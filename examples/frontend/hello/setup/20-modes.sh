chmod -R a+rX /srv
