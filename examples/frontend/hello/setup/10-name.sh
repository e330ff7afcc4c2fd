cat /srv/name.txt >> /srv/index.html
