sh app/main.sh && echo passed
