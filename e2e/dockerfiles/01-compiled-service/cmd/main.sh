case $1 in --version) version ;; --self-test) echo ok ;; *) echo "serving $*" ;; esac
