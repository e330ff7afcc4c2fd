. /shared/greet.sh
greet api
